"""HTTP towards remote services. Import from the submodules: a look at the URL guard loads no HTTP library."""
