//! Expressions: surds, powers, logarithms, trigonometry, constants, complex numbers, polynomials, rational functions.

use super::{different, equal};

#[test]
fn surds_and_powers() {
    equal(
        r"
        \sqrt{8} @@ 2\sqrt{2}
        2\sqrt{2} @@ \sqrt{8}
        2\sqrt2 @@ 2 sqrt(2)
        2\sqrt2 @@ 2*sqrt(2)
        2\sqrt2 @@ 2√2
        \frac{1}{\sqrt{2}} @@ \frac{\sqrt{2}}{2}
        \frac{1}{\sqrt3 - 1} @@ \frac{\sqrt{3}+1}{2}
        \sqrt{3+2\sqrt{2}} @@ 1+\sqrt{2}
        \sqrt{2}+\sqrt{3} @@ \sqrt{3}+\sqrt{2}
        \sqrt{2}+\sqrt{3} @@ \sqrt{5+2\sqrt{6}}
        \sqrt[3]{54} @@ 3\sqrt[3]{2}
        \sqrt[3]{-8} @@ -2
        2^{1/3} @@ \sqrt[3]{2}
        8^{2/3} @@ 4
        2^{\frac{3}{2}} @@ 2\sqrt{2}
        \sqrt{\frac{3}{4}} @@ \frac{\sqrt3}{2}
        \sqrt{12} - \sqrt{3} @@ \sqrt{3}
        (1+\sqrt2)^2 @@ 3+2\sqrt{2}
        \frac{\sqrt{6}}{\sqrt{2}} @@ \sqrt{3}
        2^{2^3} @@ 256
        2^{100} @@ 1267650600228229401496703205376
        \frac{1}{2^{5}} @@ 2^{-5}
        \sqrt{16} @@ 4
        6\sqrt{3}\text{ cm}^2 @@ 6\sqrt{3}
        \sqrt{x^4} @@ x^2
        3\sqrt{2}i @@ i\sqrt{18}
        2^{2005} @@ 2^{2005}
        ",
    );
    different(
        r"
        \sqrt{8} @@ \sqrt{2}
        2\sqrt{2} @@ 2\sqrt{3}
        2\sqrt{2} @@ 4\sqrt{2}
        2\sqrt{2} @@ \sqrt[3]{2}
        2\sqrt{2} @@ -2\sqrt{2}
        2\sqrt{2} @@ 22
        \sqrt{2}+\sqrt{3} @@ \sqrt{5}
        \sqrt{2}+\sqrt{3} @@ \sqrt{2}-\sqrt{3}
        1+\sqrt{2} @@ 1-\sqrt{2}
        \sqrt[3]{54} @@ 3\sqrt{2}
        \frac{\sqrt3}{2} @@ \frac{2}{\sqrt3}
        \frac{\sqrt3}{2} @@ \frac{\sqrt2}{3}
        2^{100} @@ 2^{101}
        2^{2005} @@ 2^{2004}
        2^{1/3} @@ 2^{1/2}
        x^2 @@ x^3
        \sqrt{x} @@ x
        \sqrt{16} @@ 8
        ",
    );
}

#[test]
fn logarithms_trigonometry_and_constants() {
    equal(
        r"
        \log_2 8 @@ 3
        \log_{2}{8} @@ 3
        \log 100 @@ 2
        \ln e^2 @@ 2
        \ln 8 @@ 3\ln 2
        \ln\frac{1}{2} @@ -\ln 2
        \log_2 3 @@ \frac{\ln 3}{\ln 2}
        \log_4 9 @@ \log_2 3
        \ln 6 @@ \ln 2 + \ln 3
        \sin 30^\circ @@ \frac{1}{2}
        \sin\frac{\pi}{6} @@ 0.5
        \cos(\pi/3) @@ 1/2
        \tan 60^{\circ} @@ \sqrt{3}
        \cos 36^\circ @@ \frac{1+\sqrt5}{4}
        \sin 15^\circ @@ \frac{\sqrt6-\sqrt2}{4}
        \sin^2 x + \cos^2 x @@ 1
        \sin 2x @@ 2\sin x\cos x
        \cos 2x @@ 1 - 2\sin^2 x
        \arctan 1 @@ \frac{\pi}{4}
        \arcsin\frac{1}{2} @@ \frac{\pi}{6}
        \tan^{-1} 1 @@ \pi/4
        \frac{\pi}{2} @@ 0.5\pi
        \frac{\pi}{2} @@ \frac12 \pi
        2\pi @@ 2π
        2\pi @@ 2pi
        2\pi @@ 2*pi
        \pi r^2 @@ r^2 \pi
        e^2 @@ e*e
        e^{2} @@ \exp(2)
        e^{x+1} @@ e \cdot e^x
        2e @@ e \cdot 2
        \frac{e}{\pi} @@ e/\pi
        \sinh 0 @@ 0
        4\pi - 2 @@ -2+4\pi
        100\pi @@ 314.159265
        ",
    );
    different(
        r"
        \log_2 8 @@ 4
        \log_2 3 @@ \log_3 2
        \ln 2 @@ \log 2
        \ln 6 @@ \ln 5
        \sin 30^\circ @@ \frac{\sqrt3}{2}
        \sin 30^\circ @@ \sin 30
        \cos x @@ \sin x
        \cos 2x @@ 2\cos x
        \frac{\pi}{2} @@ \frac{\pi}{3}
        \frac{\pi}{2} @@ \frac{2}{\pi}
        2\pi @@ 2
        2\pi @@ \pi
        2\pi @@ -2\pi
        \pi @@ e
        \pi @@ \frac{22}{7}
        e^2 @@ 2e
        e^2 @@ e^3
        e^{x+1} @@ e^x + 1
        \arctan 1 @@ \arctan 2
        100\pi @@ 100
        4\pi - 2 @@ 4\pi + 2
        ",
    );
}

#[test]
fn complex_numbers() {
    equal(
        r"
        3+4i @@ 4i+3
        3+4i @@ 3 + 4 i
        i^2 @@ -1
        i @@ \sqrt{-1}
        \sqrt{-4} @@ 2i
        (1+i)^2 @@ 2i
        \frac{1}{i} @@ -i
        \frac{1+i}{1-i} @@ i
        |3+4i| @@ 5
        e^{i\pi} @@ -1
        e^{\pi i/2} @@ i
        \frac{1}{2}+\frac{\sqrt3}{2}i @@ e^{i\pi/3}
        -\frac{1}{2} + \frac{\sqrt{3}}{2} i @@ \frac{-1+i\sqrt{3}}{2}
        2-3i @@ -3i+2
        6-5i @@ 6 - 5\cdot i
        ",
    );
    different(
        r"
        3+4i @@ 4+3i
        3+4i @@ 3-4i
        3+4i @@ 3+4
        3+4i @@ 7i
        i @@ -i
        i @@ 1
        (1+i)^2 @@ -2i
        e^{i\pi} @@ 1
        |3+4i| @@ 7
        2-3i @@ 2+3i
        ",
    );
}

#[test]
fn polynomials_and_rational_functions() {
    equal(
        r"
        x^2+2x+1 @@ (x+1)^2
        (x+1)^2 @@ x^2 + 2x + 1
        x^2-1 @@ (x-1)(x+1)
        x^2-1 @@ -1+x^{2}
        2x+3 @@ 3+2x
        2x+3 @@ 3 + 2*x
        2x+3 @@ 2X+3
        xy @@ yx
        xy @@ x*y
        a^2b @@ b a^2
        x^3 - 6x^2 + 11x - 6 @@ (x-1)(x-2)(x-3)
        \frac{x^2-1}{x-1} @@ x+1
        \frac{1}{x}+\frac{1}{y} @@ \frac{x+y}{xy}
        \frac{x}{2} @@ 0.5x
        \frac{x}{2} @@ \frac{1}{2}x
        \frac{a}{b} @@ a/b
        \frac{n(n+1)}{2} @@ \frac{n^2+n}{2}
        \frac{n(n+1)}{2} @@ n(n+1)/2
        x^{-1} @@ \frac{1}{x}
        2^{n+1} @@ 2 \cdot 2^n
        2^{n}-1 @@ -1+2^n
        4^n @@ 2^{2n}
        (a+b)^3 @@ a^3+3a^2b+3ab^2+b^3
        x_1 + x_2 @@ x_2 + x_1
        f(x) = x^2 @@ x^2
        y = 2x + 1 @@ 2x+1
        -x^2 @@ -(x^2)
        (-x)^2 @@ x^2
        \frac{2x+4}{2} @@ x+2
        \alpha + \beta @@ \beta+\alpha
        n! @@ n!
        (n+1)! @@ (n+1) \cdot n!
        \frac{-2x+5}{(x-1)^2} @@ \frac{5-2x}{x^2-2x+1}
        ",
    );
    different(
        r"
        x^2+2x+1 @@ (x-1)^2
        x^2+2x+1 @@ x^2+2x
        x^2-1 @@ x^2+1
        x^2-1 @@ 1-x^2
        2x+3 @@ 3x+2
        2x+3 @@ 2x-3
        2x+3 @@ 2y+3
        2x+3 @@ 5
        xy @@ x+y
        x^{2}3 @@ x^{23}
        a^2b @@ ab^2
        \frac{x}{2} @@ \frac{2}{x}
        \frac{1}{x}+\frac{1}{y} @@ \frac{1}{x+y}
        \frac{n(n+1)}{2} @@ \frac{n(n-1)}{2}
        2^{n+1} @@ 2^n
        4^n @@ 2^n
        -x^2 @@ x^2
        (a+b)^3 @@ a^3+b^3
        x_1 + x_2 @@ x_1 + x_3
        x_1 @@ x_2
        y = 2x + 1 @@ y = 2x - 1
        n! @@ n
        |x| @@ x
        ",
    );
}
