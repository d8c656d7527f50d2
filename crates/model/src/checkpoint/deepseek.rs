//! The forms DeepSeek-V3 checkpoints come in: one tensor per expert (as released) or all experts of a layer in one (as newer
//! transformers holds them), 8-bit floats with a scale per 128 x 128 block, with and without prediction modules.

use super::safetensors::Store;
use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// Rows and columns that share a scale.
const BLOCK: usize = 128;

/// Where an expert's matrix lies in the tensor that holds those of all experts.
struct Fused {
    name: String,
    expert: usize,
    /// Gate and up are the halves of one tensor.
    half: Option<usize>,
}

/// The fused place of `model.layers.I.mlp.experts.E.{gate,up,down}_proj.weight`.
fn fused(name: &str) -> Option<Fused> {
    let (layer, rest) = name.split_once(".mlp.experts.")?;
    let (expert, part) = rest.split_once('.')?;
    let (tensor, half) = match part {
        "gate_proj.weight" => ("gate_up_proj", Some(0)),
        "up_proj.weight" => ("gate_up_proj", Some(1)),
        "down_proj.weight" => ("down_proj", None),
        _ => return None,
    };
    Some(Fused { name: format!("{layer}.mlp.experts.{tensor}"), expert: expert.parse().ok()?, half })
}

/// Shape of a tensor under the name it has when experts are apart.
pub(super) fn shape(store: &Store, name: &str) -> Option<Vec<usize>> {
    if let Some(shape) = store.shape(name) {
        return Some(shape.to_vec());
    }
    let place = fused(name)?;
    match *store.shape(&place.name)? {
        [experts, n, k] if place.expert < experts => Some(vec![if place.half.is_some() { n / 2 } else { n }, k]),
        _ => None,
    }
}

/// Values of a tensor, dequantised.
pub(super) fn read(store: &Store, name: &str) -> Result<Vec<f32>> {
    if store.shape(name).is_none()
        && let Some(place) = fused(name)
        && let Some(&[_, n, k]) = store.shape(&place.name)
    {
        let rows = if place.half.is_some() { n / 2 } else { n };
        let first = place.expert * n * k + place.half.unwrap_or(0) * rows * k;
        return store.read_part(&place.name, first, rows * k);
    }
    let mut values = store.read(name)?;
    let scales = format!("{name}_scale_inv");
    if store.is_fp8(name) {
        let bad = |problem: String| store.bad(name, problem);
        let (Some(&[n, k]), Some(&[rows, columns])) = (store.shape(name), store.shape(&scales)) else {
            return Err(bad(format!("tensor {name} is F8_E4M3 but has no matrix {scales} beside it")));
        };
        if (rows, columns) != (n.div_ceil(BLOCK), k.div_ceil(BLOCK)) {
            let wanted = [n.div_ceil(BLOCK), k.div_ceil(BLOCK)];
            return Err(bad(format!("{scales} is [{rows}, {columns}]; blocks of 128 x 128 need {wanted:?}")));
        }
        let scales = store.read(&scales)?;
        for (i, row) in values.chunks_exact_mut(k).enumerate() {
            for (piece, scale) in row.chunks_mut(BLOCK).zip(&scales[i / BLOCK * columns..]) {
                piece.iter_mut().for_each(|v| *v *= scale);
            }
        }
    }
    Ok(values)
}

/// Whether a tensor of the files is used, though the model has no parameter of that name.
pub(super) fn is_part(config: &ModelConfig, name: &str) -> bool {
    let Some(d) = &config.deepseek else { return false };
    let experts = [".mlp.experts.gate_up_proj", ".mlp.experts.down_proj"].iter().any(|end| name.ends_with(end));
    experts || name.ends_with("_scale_inv") || d.shared_copies(config).iter().any(|(t, _)| t.name == name)
}

/// Drops prediction modules that the configuration names and the files do not hold, as transformers writes them.
///
/// # Errors
/// Files that hold some of the modules.
pub(super) fn adapt(config: &mut ModelConfig, store: &Store) -> Result<()> {
    let layers = config.num_hidden_layers;
    let Some(d) = &mut config.deepseek else { return Ok(()) };
    let named = d.num_nextn_predict_layers;
    let held = |k: &usize| store.shape(&format!("model.layers.{}.eh_proj.weight", layers + k)).is_some();
    match (0..named).filter(held).count() {
        0 => d.num_nextn_predict_layers = 0,
        n if n == named => {}
        n => return Err(Error::Config(format!("num_nextn_predict_layers is {named}, but the files hold {n} modules"))),
    }
    Ok(())
}

/// The value of an 8-bit float with 4 bits of exponent and 3 of mantissa (no infinities, one NaN per sign).
pub(super) fn e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let size = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * 2f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if bits >> 7 == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_floats_have_their_values() {
        let known = [
            (0x00, 0.0),
            (0x01, 0.001_953_125),
            (0x08, 0.015_625),
            (0x38, 1.0),
            (0x7e, 448.0),
            (0xb8, -1.0),
            (0xc4, -3.0),
        ];
        for (bits, value) in known {
            assert_eq!(e4m3(bits), value, "{bits:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        assert_eq!(e4m3(0x80).to_bits(), (-0f32).to_bits());
    }

    #[test]
    fn experts_are_found_in_fused_tensors() {
        let place = fused("model.layers.3.mlp.experts.17.up_proj.weight").expect("an expert");
        assert_eq!(
            (place.name.as_str(), place.expert, place.half),
            ("model.layers.3.mlp.experts.gate_up_proj", 17, Some(1))
        );
        assert!(fused("model.layers.3.mlp.shared_experts.up_proj.weight").is_none());
    }
}
