"""The check-up itself: could it run, and do its suppressions silence anything?"""
