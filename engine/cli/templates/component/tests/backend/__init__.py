"""An application that has the component twice."""
