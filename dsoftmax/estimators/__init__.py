"""The public estimators, in scikit-learn's conventions, and what a fitted model can do."""
