"""budgetlab: does it matter which samples you train on, when you can afford only a few?"""
