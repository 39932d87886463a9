"""`unpackenv doctor`: what a start would find here, and what speaks against it. It changes nothing."""
