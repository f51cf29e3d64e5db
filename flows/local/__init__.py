"""`excel up` and `excel down`: a local Prefect installation for a store, from its server to its worker."""
