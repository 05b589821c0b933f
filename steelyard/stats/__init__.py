"""Estimators whose intervals are honest at the sample sizes Steelyard really has."""
