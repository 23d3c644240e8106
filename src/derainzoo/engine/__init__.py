"""Lightning modules, callbacks, optimisers, and the tasks that train and evaluate."""
