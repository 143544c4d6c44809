//! What runs beside traffic: probes, name resolution, file watch.
