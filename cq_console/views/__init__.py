"""What answers each address of the console? Views are thin: permission, query, template."""
