"""Installing capture: `survey` and `catalog` gather, `preflight` and `plan` decide, `apply` acts."""
