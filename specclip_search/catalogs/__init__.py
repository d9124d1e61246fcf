"""Catalogues of stars into the atlas."""
