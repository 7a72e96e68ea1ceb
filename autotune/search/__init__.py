"""Step 4, search: from a space and an estimate function to a Pareto front. The only room that knows Optuna."""
