"""What makes the results that the kit publishes: plans stated beforehand, tables, pages."""
