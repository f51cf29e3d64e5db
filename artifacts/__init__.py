"""What a person looks at: tables, galleries, charts, the HTML report and their Prefect artifacts."""
