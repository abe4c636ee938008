"""The command line of augkit: flags in, one public function each, text or JSON out."""
