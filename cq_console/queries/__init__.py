"""What does the console read? Bounded queries that return frozen values, a module for each page."""
