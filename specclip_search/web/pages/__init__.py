"""What each page of the explorer knows; nothing here speaks HTTP except the forms of answers."""
