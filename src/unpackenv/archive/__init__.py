"""What an archive is: its layout, its codecs, how it is read and written."""
