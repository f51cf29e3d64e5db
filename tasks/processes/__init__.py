"""Training in several processes of one machine: starting them, and what each of them runs."""
