"""Visual geo-localization by image retrieval: the models and the steps of the study."""
