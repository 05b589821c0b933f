"""The search for the best stack of levers: what may be pulled, what is measured, what is kept."""
