"""Plans a run from settings before any data are used: noise, costs, budgets."""
