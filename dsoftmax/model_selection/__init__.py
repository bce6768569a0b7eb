"""Many candidates and folds in the reads of one fit."""
