"""The store's runs, before and after: records, plans, comparisons, what can go."""
