"""Pictures and pages made from a store."""
