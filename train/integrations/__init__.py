"""Rewards and advantages for those who train elsewhere: TRL, verl, ms-swift."""
