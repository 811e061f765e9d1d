"""README's table and the pages that are generated from the stored results and the commands."""
