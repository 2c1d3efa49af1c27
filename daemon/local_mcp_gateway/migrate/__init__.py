"""The migration engine: read a folder and a ledger, and apply what is pending."""
