"""`unpackenv doctor`: what a start here would do, and what makes it slow or fail. It changes nothing."""
