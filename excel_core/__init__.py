"""The ExCEL method: arrays in, arrays out. Knows no Prefect, no command line and no global path."""
