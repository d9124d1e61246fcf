"""IVOA Table Access Protocol 1.1 over the sandbox: TOPCAT, Aladin and pyvo are clients of the explorer."""
