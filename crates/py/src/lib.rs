//! The target's own knowledge for Python, as `nvlane._native`: conversion only, no policy and no state.

use std::collections::HashMap;

use nvlane_target::control;
use pyo3::prelude::*;

/// What `nvlane._native` holds; `src/nvlane/_native.pyi` is its typed description.
#[pymodule]
mod _native {
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use super::{aliases, methods};
}

#[pyfunction]
fn methods() -> Vec<&'static str> {
    control::methods().names(None, false)
}

#[pyfunction]
fn aliases() -> HashMap<&'static str, &'static str> {
    let methods = control::methods();
    let pairs =
        methods.names(None, true).into_iter().filter_map(|name| Some((name, methods.current_name(name)?)));
    pairs.collect()
}
