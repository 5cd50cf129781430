"""Denoisers learnt without clean pictures: from the score of noisy pictures to the posterior mean."""
