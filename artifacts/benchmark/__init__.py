"""The benchmark of methods: tables, charts, and the page that holds both."""
