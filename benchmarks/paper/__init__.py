"""The claims of Arazo et al. (BMVC 2021), each a sweep that anyone can run and resume."""
