//! What happens to a request: matching, path normalisation, filters, header rules.
