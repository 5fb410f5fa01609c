"""One policy for many robots: sessions, plans under way, where and how a plan is executed, what is kept of it."""
