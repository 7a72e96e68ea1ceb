"""What people look at: text, HTML and figures made of records."""
