"""Parts of the bench error_rates: simulated studies, ours and the rules of others, and what is written about them."""
