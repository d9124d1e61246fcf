"""What people ask in SQL: the connection with searches as functions, strangers, export."""
