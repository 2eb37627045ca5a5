"""Reading a variant's source before anything of it runs, and telling two sources apart."""
