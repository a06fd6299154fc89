//! HTTP: request, place, phases, filters, variables, drivers.
