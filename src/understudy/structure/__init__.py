"""What a network costs, and networks whose structure is learnt under a budget."""
