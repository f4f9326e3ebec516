"""The reproduction of the paper: what is trained, tuning, tables, diagnostics of finished runs, claims."""
