//! A vector of f32 lanes behind one trait, and the run-time choice of instruction set.

use std::sync::OnceLock;

/// Instruction sets the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// 16 lanes, x86-64 with AVX-512F.
    Avx512,
    /// 8 lanes, x86-64 with AVX2 and FMA.
    Avx2,
    /// Plain Rust, any processor.
    Portable,
}

/// The widest instruction set this processor has. `AHA_ISA=portable|avx2|avx512` lowers it (for tests and comparisons);
/// `avx512` leaves out matrix tiles only.
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        let wish = wish();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw");
            if avx512 && avx2 && (wish.is_empty() || wish == "avx512") {
                return Isa::Avx512;
            }
            if avx2 && wish != "portable" {
                return Isa::Avx2;
            }
        }
        let _ = wish;
        Isa::Portable
    })
}

/// What `AHA_ISA` asks for.
fn wish() -> String {
    std::env::var("AHA_ISA").unwrap_or_default()
}

/// Whether matrix tiles are welcome where the processor has them.
#[cfg(target_arch = "x86_64")]
pub(super) fn tiles_wanted() -> bool {
    wish().is_empty()
}

/// Whether bf16 pairs have an instruction of their own here.
#[cfg(target_arch = "x86_64")]
pub fn bf16_dot() -> bool {
    static DOT: OnceLock<bool> = OnceLock::new();
    *DOT.get_or_init(|| isa() == Isa::Avx512 && is_x86_feature_detected!("avx512bf16"))
}

/// Lanes of f32 with the few operations the microkernels need.
///
/// # Safety
/// Callers must be compiled for (or inlined into a function compiled for) an instruction set the processor has.
pub unsafe trait Lanes: Copy {
    /// Number of f32 values in one vector.
    const WIDTH: usize;
    /// Terms of a product's sums that are made in one turn of its loop: with few lanes, counting and moving pointers at each of
    /// them would cost a quarter of the instructions.
    const STEPS: usize = 1;
    /// All lanes equal to `x`.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn splat(x: f32) -> Self;
    /// Loads `WIDTH` values.
    ///
    /// # Safety
    /// `p` must be readable for `WIDTH` values.
    unsafe fn load(p: *const f32) -> Self;
    /// Stores `WIDTH` values.
    ///
    /// # Safety
    /// `p` must be writable for `WIDTH` values.
    unsafe fn store(self, p: *mut f32);
    /// The same past the caches, where the instruction set can.
    ///
    /// # Safety
    /// As [`Lanes::store`], and `p` must be a multiple of the vector's size.
    #[inline(always)]
    unsafe fn store_past(self, p: *mut f32) {
        unsafe { self.store(p) }
    }
    /// `self + a * b`, rounded once.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
    /// `self + o`.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn add(self, o: Self) -> Self;
}

/// Lanes whose words are single values.
///
/// # Safety
/// As [`Lanes`].
pub unsafe trait Floats: Lanes {
    /// The larger of both, `self` where they do not compare.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn max(self, o: Self) -> Self;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Floats, Lanes};
    use std::arch::x86_64::*;

    // SAFETY: plain forwarding to the intrinsics; the trait's contract asks callers for AVX-512F.
    unsafe impl Lanes for __m512 {
        const WIDTH: usize = 16;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe { _mm512_storeu_ps(p, self) }
        }
        #[inline(always)]
        unsafe fn fma(self, a: Self, b: Self) -> Self {
            unsafe { _mm512_fmadd_ps(a, b, self) }
        }
        #[inline(always)]
        unsafe fn add(self, o: Self) -> Self {
            unsafe { _mm512_add_ps(self, o) }
        }
    }

    // SAFETY: as above.
    unsafe impl Floats for __m512 {
        #[inline(always)]
        unsafe fn max(self, o: Self) -> Self {
            unsafe { _mm512_max_ps(o, self) }
        }
    }

    // SAFETY: plain forwarding to the intrinsics; the trait's contract asks callers for AVX2 and FMA.
    unsafe impl Lanes for __m256 {
        const WIDTH: usize = 8;
        const STEPS: usize = 4;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe { _mm256_storeu_ps(p, self) }
        }
        #[inline(always)]
        unsafe fn fma(self, a: Self, b: Self) -> Self {
            unsafe { _mm256_fmadd_ps(a, b, self) }
        }
        #[inline(always)]
        unsafe fn add(self, o: Self) -> Self {
            unsafe { _mm256_add_ps(self, o) }
        }
    }

    // SAFETY: as above.
    unsafe impl Floats for __m256 {
        #[inline(always)]
        unsafe fn max(self, o: Self) -> Self {
            unsafe { _mm256_max_ps(o, self) }
        }
    }
}

/// Eight lanes in plain Rust; the compiler maps them to what the target has.
#[derive(Clone, Copy)]
pub struct Plain([f32; 8]);

// SAFETY: no instruction set is assumed; pointers are used within the trait's contract.
unsafe impl Lanes for Plain {
    const WIDTH: usize = 8;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Plain([x; 8])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Plain(unsafe { p.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { p.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        Plain(std::array::from_fn(|i| a.0[i].mul_add(b.0[i], self.0[i])))
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        Plain(std::array::from_fn(|i| self.0[i] + o.0[i]))
    }
}

// SAFETY: as above.
unsafe impl Floats for Plain {
    #[inline(always)]
    unsafe fn max(self, o: Self) -> Self {
        Plain(std::array::from_fn(|i| if o.0[i] > self.0[i] { o.0[i] } else { self.0[i] }))
    }
}

/// Compiles a safe, branch-free loop once per instruction set and calls the widest one the processor has. `fn name<S>(...)`
/// has its vectors as `S`, [`Floats`] that the instruction set has.
#[macro_export]
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident < $lanes:ident > ( $($arg:ident : $ty:ty),* $(,)? ) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters)]
            fn body<$lanes: $crate::cpu::simd::Floats>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn wide($($arg: $ty),*) $(-> $ret)? { body::<std::arch::x86_64::__m512>($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn narrow($($arg: $ty),*) $(-> $ret)? { body::<std::arch::x86_64::__m256>($($arg),*) }
                match $crate::cpu::isa() {
                    // SAFETY: `isa` has checked that the processor has these features.
                    $crate::cpu::Isa::Avx512 => return unsafe { wide($($arg),*) },
                    // SAFETY: as above.
                    $crate::cpu::Isa::Avx2 => return unsafe { narrow($($arg),*) },
                    $crate::cpu::Isa::Portable => {}
                }
            }
            body::<$crate::cpu::simd::Plain>($($arg),*)
        }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident ( $($arg:ident : $ty:ty),* $(,)? ) $(-> $ret:ty)? $body:block) => {
        $crate::multiversion! { $(#[$meta])* $vis fn $name<S>($($arg: $ty),*) $(-> $ret)? $body }
    };
}
