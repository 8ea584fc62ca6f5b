"""Scripts behind the published results: plans fixed in advance, result tables, pages."""
