"""Searches: many models in the reads of one fit."""
