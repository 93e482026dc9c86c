"""What Mintoken costs, beside a bare relay and beside the provider itself; `make bench`."""
