//! The target's own knowledge for Python, as `nvlane._native`: conversion only, no policy and no state.

use std::collections::HashMap;

use nvlane_target::control::{load, table};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// What `nvlane._native` holds; `src/nvlane/_native.pyi` is its typed description.
#[pymodule]
mod _native {
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use super::{aliases, check_config, methods};
}

#[pyfunction]
fn methods() -> Vec<&'static str> {
    table().names(None, false)
}

#[pyfunction]
fn aliases() -> HashMap<&'static str, &'static str> {
    let methods = table();
    let pairs =
        methods.names(None, true).into_iter().filter_map(|name| Some((name, methods.current_name(name)?)));
    pairs.collect()
}

#[pyfunction]
fn check_config(text: &str) -> PyResult<()> {
    load::check(text).map_err(PyValueError::new_err)
}
