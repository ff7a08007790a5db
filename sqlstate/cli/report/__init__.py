"""A store as one page to look at: `facts` reads the store, `charts` draws, `page` writes HTML. Start at `page`."""
